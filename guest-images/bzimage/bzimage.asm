; A kernel by Linux' boot protocol (Documentation/arch/x86/boot.rst): started at its 16-bit part by a firmware, at its 32-bit
; part by a loader. Prints which, its command line and its initrd.
%define COM1 0x3f8
        bits 16
        org 0
SETUP   equ 0x10000             ; where the 16-bit part is, once started there
PARAGRAPHS equ SETUP >> 4
        times 0x1f1 - ($ - $$) db 0
        db 1                    ; sectors of the 16-bit part beside the first
        dw 0
        dd (kernel_end - kernel + 15) / 16
        dw 0, 0, 0
        dw 0xaa55
        jmp short setup         ; 0x200
        db "HdrS"
        dw 0x20f                ; version 2.15
        dd 0
        dw 0, version - 0x200
        db 0, 1                 ; loaded high
        dw 0
        dd 0x100000
        dd 0, 0                 ; initrd
        dd 0
        dw 0
        db 0, 0
        dd 0                    ; command line
        dd 0x7fffffff           ; highest address of an initrd
        dd 4096                 ; alignment
        db 1, 12                ; can be moved
        dw 0
        dd 255                  ; longest command line
        dd 0, 0, 0, 0, 0, 0, 0
        dq 0x100000             ; wanted address
        dd 0x10000              ; memory from there
        dd 0
        times 0x268 - ($ - $$) db 0
version: db "guest 0.1", 0     ; not a number first: no Linux

setup:  cli
        mov ax, PARAGRAPHS
        mov ds, ax
        lgdt [gdt_pointer]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:SETUP + protected
        bits 32
protected:
        mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esi, SETUP          ; its header is where that of boot_params is
        mov edi, 16             ; how it came
        mov eax, 0x100000 + in_kernel - kernel
        jmp eax
        align 8
gdt:    dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer: dw 23
        dd SETUP + gdt
        times 0x400 - ($ - $$) db 0

kernel: mov edi, 32
in_kernel:
        mov ebp, esi
        mov esp, 0x90000
        mov ebx, 0x100000 - kernel      ; of labels
        lea esi, [ebx + by_32]
        cmp edi, 32
        je .by
        lea esi, [ebx + by_16]
.by:    call print
        mov esi, [ebp + 0x228]
        call print
        lea esi, [ebx + newline]
        call print
        mov esi, [ebp + 0x218]
        mov ecx, [ebp + 0x21c]
        mov dx, COM1
        rep outsb
        lea esi, [ebx + token]
        call print
        xor eax, eax
        out 0xf4, al
        jmp $

print:  mov dx, COM1
.next:  lodsb
        test al, al
        jz .done
        out dx, al
        jmp .next
.done:  ret
by_16:  db "16-bit ", 0
by_32:  db "32-bit ", 0
newline: db 10, 0
token:  db "bzimage: OK", 10, 0
        align 16
kernel_end:
