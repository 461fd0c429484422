; RDTSC and RDTSCP-free time in ring 0: two reads a round must not run backwards, and their difference is
; kept in memory and in a register, so that two replicas that see different times differ.
%include "common.inc"
ROUNDS  equ 40
        mov r12d, ROUNDS
        xor r13, r13
        xor r14, r14            ; the last time seen
.round: rdtsc
        shl rdx, 32
        or rax, rdx
        cmp rax, r14
        jb .bad
        mov r14, rax
        mov al, r12b
        out POST, al
        db 0x66, 0x2e           ; prefixes that mean nothing to it
        rdtsc
        shl rdx, 32
        or rax, rdx
        cmp rax, r14
        jb .bad                 ; equal where the TSC stands still
        sub rax, r14
        add r13, rax
        mov [rel sum], r13
        out POST, al
        dec r12d
        jnz .round
        print token
        finish 0
.bad:   print back
        finish 1
token:  db "rdtsc: OK", 10, 0
back:   db "rdtsc: time ran backwards", 10, 0
        align 8
sum:    dq 0
        library
