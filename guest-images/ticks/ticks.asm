; Elements that are longer than a tick of the frozen TSC, and read it all along. The sum of what they read stays in memory.
%include "common.inc"
ROUNDS  equ 4
READS   equ 32                  ; in a round, and turns of a loop before each: milliseconds without an exit
TURNS   equ 100000
        mov r12d, ROUNDS
        xor r14, r14            ; the last time seen
.round: mov r13d, READS
.read:  mov ecx, TURNS
.turn:  dec ecx
        jnz .turn
        rdtsc
        shl rdx, 32
        or rax, rdx
        cmp rax, r14
        jb .bad
        mov r14, rax
        add [rel sum], rax
        dec r13d
        jnz .read
        mov al, r12b
        out POST, al
        dec r12d
        jnz .round
        print token
        finish 0
.bad:   print bad
        finish 1
token:  db "ticks: OK", 10, 0
bad:    db "ticks: time runs backwards", 10, 0
        align 8
sum:    dq 0
        library
