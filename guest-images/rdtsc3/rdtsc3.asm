; RDTSC in a loop in ring 3 with IOPL 0, where no port traps it: time must not run backwards, and what was read stays
; in memory.
%include "common.inc"
ROUNDS  equ 40
        allow_syscall kernel
        enter_ring3 user, 0
user:   mov r12d, ROUNDS
        xor r14, r14            ; the last time seen
.round: rdtsc
        shl rdx, 32
        or rax, rdx
        cmp rax, r14
        jb .bad
        mov r14, rax
        mov [rel time], rax
        xor eax, eax
        xor edx, edx
        dec r12d
        jnz .round
        syscall
.bad:   mov r12d, 1
        syscall
kernel: test r12d, r12d
        jnz .bad
        print token
        finish 0
.bad:   print back
        finish 1
token:  db "rdtsc3: OK", 10, 0
back:   db "rdtsc3: time ran backwards", 10, 0
        align 8
time:   dq 0
        library
