; Leaves long mode and enters it again in an order that few kernels use: EFER.LME first, with an exit, then CR4.PAE with
; another, then paging (NOVA does; SDM 3A 9.8.5 asks for no order of the two).
%include "common.inc"
CODE32  equ 0x20                ; a free place of the GDT (boot/entry.py)
ROUNDS  equ 20
        mov rax, 0x00cf9b000000ffff
        mov [GDT + CODE32], rax
        mov ebx, ROUNDS
again:  push qword CODE32
        lea rax, [rel legacy]
        push rax
        retfq

        bits 32
%macro out_post 0
        mov al, bl
        out POST, al
%endmacro
legacy: mov eax, cr0
        and eax, 0x7fffffff     ; PG
        mov cr0, eax
        mov ecx, MSR_EFER
        rdmsr
        and eax, ~(1 << 8)      ; LME
        wrmsr
        mov eax, cr4
        and eax, ~(1 << 5)      ; PAE
        mov cr4, eax
        out_post
        mov ecx, MSR_EFER
        rdmsr
        or eax, 1 << 8
        wrmsr
        out_post                ; LME without PAE
        mov eax, cr4
        or eax, 1 << 5
        mov cr4, eax
        out_post
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        out_post                ; compatibility mode
        mov ecx, MSR_EFER
        rdmsr
        test eax, 1 << 10       ; LMA
        jz bad
        jmp 0x10:back
bad:    finish 1
        bits 64
back:   dec ebx
        jnz again
        print token
        finish 0
token:  db "lme: OK", 10, 0
        library
