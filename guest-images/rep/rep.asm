; REP STOS, MOVS, SCAS and CMPS over pages, between port writes that end elements.
%include "common.inc"
SOURCE equ 0x400000
TARGET equ 0x500000
        cld
        xor ebx, ebx
        mov r12d, 3
.turn:  mov rdi, SOURCE
        mov rax, r12
        mov ecx, 2048
        rep stosq
        mov rsi, SOURCE + 3
        mov rdi, TARGET + 5
        mov ecx, 16000
        rep movsb
        out POST, al
        mov rsi, SOURCE + 3
        mov rdi, TARGET + 5
        mov ecx, 16000
        repe cmpsb
        jne failed
        mov rdi, SOURCE
        mov ecx, 100
        mov al, 0xee
        repne scasb
        add rbx, rcx
        mov rax, [TARGET + 13]
        imul rbx, rbx, 31
        add rbx, rax
        dec r12d
        jnz .turn
        print token
        call print_hex
        finish 0
failed: print wrong
        finish 1
token:  db "rep: OK ", 0
wrong:  db "rep: FAIL", 10, 0
        library
