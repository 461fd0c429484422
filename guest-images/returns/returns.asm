; Pages that are written at once, left alone for 40 elements, and written again: a VMM can learn to leave them writable.
%include "common.inc"
DATA_AT equ 0x400000
PAGES   equ 32
        mov r12d, 12            ; rounds
        xor ebx, ebx
.round: mov rdi, DATA_AT
        mov ecx, PAGES
.page:  add [rdi], r12
        add rbx, [rdi]
        add rdi, 4096
        loop .page
        mov ecx, 40
.wait:  mov al, cl
        out POST, al
        loop .wait
        dec r12d
        jnz .round
        print token
        call print_hex
        finish 0
token:  db "returns: OK ", 0
        library
