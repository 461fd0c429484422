; Multiboot 2, for GRUB to start: prints its command line, its module, and the tables of ACPI that the BIOS has found.
%include "common32.inc"
        org 0x200000
MAGIC   equ 0xe85250d6
header: dd MAGIC, 0, header_end - header, -(MAGIC + header_end - header)
        dw 2, 0                 ; addresses
        dd 24, header, header, 0, bss_end
        dw 3, 0                 ; entry
        dd 12, start
        align 8
        dw 0, 0
        dd 8
header_end:

start:  mov esp, STACK
        cmp eax, 0x36d76289
        jne wrong
        lea edi, [ebx + 8]
tag:    mov eax, [edi]
        test eax, eax
        jz ready
        cmp eax, 1
        je text
        cmp eax, 3
        je module
        cmp eax, 14             ; a copy of the root pointer of ACPI 1.0, and of 2.0
        je pointer
        cmp eax, 15
        je pointer
next:   mov eax, [edi + 4]
        add eax, 7
        and eax, ~7
        add edi, eax
        jmp tag

text:   lea esi, [edi + 8]
        call print_string
        say newline
        jmp next

module: lea esi, [edi + 16]
        call print_string
        say newline
        mov esi, [edi + 8]
        mov ecx, [edi + 12]
        sub ecx, esi
        mov dx, COM1
        rep outsb
        jmp next

pointer:
        mov ebp, [edi + 8 + 16] ; the RSDT, and the tables it names
        mov ecx, 4
        mov esi, ebp
        mov dx, COM1
        rep outsb
        mov ebx, [ebp + 4]
        add ebx, ebp            ; its end
        lea ebp, [ebp + 36]
.table: cmp ebp, ebx
        jae .done
        mov al, ' '
        out dx, al
        mov esi, [ebp]
        mov ecx, 4
        rep outsb
        add ebp, 4
        jmp .table
.done:  say newline
        jmp next

ready:  say token
        finish 0
wrong:  say failed
        finish 1

failed:  db "wrong", 10, 0
token:   db "grub: OK", 10, 0
        library32
        align 16
bss_end equ $ + 64
