; A kernel of 32 bits with PAE, as Linux' is: page directory pointers (whose accessed bits are reserved: CR3 is written, and read
; back after a restore), and ring 3, which does port I/O by the permission bitmap and comes back by an interrupt.
%include "common.inc"
CODE32  equ 0x20                ; free places of the GDT (boot/entry.py)
TSS32   equ 0x38
USER32  equ 0x30                ; no 64-bit code from here on
POINTERS equ 0x500000
DIRECTORY equ 0x501000
WINDOW  equ 0x40000000          ; the second pointer: shows FRAMES or the next 2 MiB
FRAMES  equ 0x600000
ROUNDS  equ 40
BITMAP  equ 104                 ; behind the task state

        mov rax, 0x00cf9b000000ffff
        mov [GDT + CODE32], rax
        mov rax, 0x00cffb000000ffff
        mov [GDT + USER32], rax
        push qword CODE32
        lea rax, [rel legacy]
        push rax
        retfq

        bits 32
legacy: mov eax, cr0
        and eax, 0x7fffffff     ; PG
        mov cr0, eax
        mov ecx, MSR_EFER
        rdmsr
        and eax, ~(1 << 8)      ; LME
        wrmsr
        xor eax, eax
        mov edi, POINTERS
        mov ecx, 3 * 1024
        rep stosd
        mov dword [POINTERS], DIRECTORY + 1
        mov dword [POINTERS + 8], DIRECTORY + 0x1000 + 1
        mov ecx, 512            ; 1 GiB as it is, for ring 3, too
        mov edi, DIRECTORY
        mov eax, 0x87
.entry: mov [edi], eax
        add eax, 0x200000
        add edi, 8
        loop .entry
        mov dword [DIRECTORY + 0x1000], FRAMES + 0x87
        mov eax, POINTERS
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax

        lidt [idt_pointer]
        mov eax, call_kernel
        mov [idt + 8 * 0x80], ax
        mov word [idt + 8 * 0x80 + 2], CODE32
        mov word [idt + 8 * 0x80 + 4], 0xee00   ; from ring 3
        shr eax, 16
        mov [idt + 8 * 0x80 + 6], ax
        mov eax, tss
        mov word [GDT + TSS32], tss_end - tss - 1
        mov [GDT + TSS32 + 2], ax
        shr eax, 16
        mov [GDT + TSS32 + 4], al
        mov word [GDT + TSS32 + 5], 0x0089
        mov [GDT + TSS32 + 7], ah
        mov ax, TSS32
        ltr ax
        mov eax, 0x2b           ; one that ring 3 may use, or IRET leaves none
        mov ds, ax
        mov es, ax
        xor ebp, ebp            ; round
        xor ebx, ebx            ; sum
        push dword 0x2b         ; SS
        push dword 0x3f0000     ; ESP
        push dword 2            ; IOPL 0
        push dword USER32 + 3
        push dword user
        iretd

user:   mov eax, ebp
        out POST, al            ; by the bitmap
        add [WINDOW], ebp       ; a walk by the pointers
        int 0x80
        cmp ebp, ROUNDS
        jb user
        mov esi, token
        mov edx, COM1
.next:  lodsb
        test al, al
        jz .done
        out dx, al
        jmp .next
.done:  mov al, 0
        out DEBUGEXIT, al
        jmp $

call_kernel:                    ; the window moves: CR3 is written
        inc ebp
        out POST, al
        xor dword [DIRECTORY + 0x1000], 0x200000
        mov eax, cr3
        mov cr3, eax
        test dword [POINTERS], 0x1e6    ; what is reserved
        jnz .bad
        iretd
.bad:   finish 1

token:  db "pae: OK", 10, 0
        align 16
idt:    times 8 * 0x81 db 0
idt_pointer:
        dw 8 * 0x81 - 1
        dd idt
        align 16
tss:    dd 0, 0x3e0000, 0x18    ; SS0:ESP0
        times BITMAP - 12 - 2 db 0
        dw BITMAP
        times 0x10 db 0xff      ; ports below 0x80
        db 0xfe                 ; 0x80
        times 0xd db 0xff
        db 0xef                 ; 0xf4
        times 0x60 db 0xff      ; from 0xf8
        db 0, 0xff               ; 0x3f8
tss_end:
