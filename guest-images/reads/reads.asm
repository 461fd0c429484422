; Three RDTSC in a row: the element after the first one starts at the next. Time must not run backwards, and stays in memory.
%include "common.inc"
ROUNDS  equ 4
        mov r12d, ROUNDS
        xor r14, r14            ; the last time seen
.round: xor edx, edx
        rdtsc
        rdtsc
        rdtsc
        shl rdx, 32
        or rax, rdx
        cmp rax, r14
        jb .bad                 ; a frozen TSC may stand still from one short element to the next
        mov r14, rax
        mov [rel time], rax
        mov al, r12b
        out POST, al
        dec r12d
        jnz .round
        print token
        finish 0
.bad:   print back
        finish 1
token:  db "reads: OK", 10, 0
back:   db "reads: time went back", 10, 0
        library
        align 8
time:   dq 0
