; RDTSC whose two bytes lie in two pages that are no neighbours in guest memory: what replaces it by its first byte's address would
; write into a page that has nothing to do with it.
%include "common.inc"
ROUNDS  equ 4
OTHER   equ FRAMES + 0x1000     ; behind the first page in memory, and mapped nowhere
CANARY  equ 0x5a
        map_tables
        mov qword [PT], FRAMES + 7
        mov qword [PT + 8], FRAMES + 0x2000 + 7
        mov byte [OTHER], CANARY
        mov byte [FRAMES + 0xfff], 0x0f
        mov word [FRAMES + 0x2000], 0xc331      ; the second byte of RDTSC, and RET
        mov rcx, cr3
        mov cr3, rcx
        mov rbp, LINEAR + 0xfff
        mov r12d, ROUNDS
.round: call rbp
        shl rdx, 32
        or rax, rdx
        mov [rel time], rax
        mov al, r12b
        out POST, al
        cmp byte [OTHER], CANARY
        jne .wrong
        dec r12d
        jnz .round
        print token
        finish 0
.wrong: print wrong
        finish 1
token:  db "split: OK", 10, 0
wrong:  db "split: a page that is not of the instruction has changed", 10, 0
        library
        align 8
time:   dq 0
