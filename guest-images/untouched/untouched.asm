; Pages written once, left alone over many elements, then used: an upset in them must be found then.
%include "common.inc"
DATA_AT equ 0x400000
        mov rdi, DATA_AT
        mov ecx, 64 * 512
        mov rax, 0x0123456789abcdef
.fill:  mov [rdi], rax
        rol rax, 7
        add rdi, 8
        dec ecx
        jnz .fill
        mov ecx, 200
.wait:  mov al, cl
        out POST, al
        dec ecx
        jnz .wait
        mov rdi, DATA_AT
        mov ecx, 64 * 512
        xor ebx, ebx
.sum:   imul rbx, rbx, 31
        add rbx, [rdi]
        add rdi, 8
        dec ecx
        jnz .sum
        print token
        call print_hex
        finish 0
token:  db "untouched: OK ", 0
        library
