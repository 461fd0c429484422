; Computes for long without an exit, and how long depends on RDTSC: two replicas that read different times are led apart within a
; slice, and no end of it is common to them.
%include "common.inc"
ROUNDS  equ 4
TURNS   equ 40000
        mov al, 0xff            ; no timer interrupt is due
        out 0x21, al
        mov r12d, ROUNDS
        xor r13, r13
.round: rdtsc
        call sway
        rdtsc                   ; a site of its own
        call sway
        mov al, r12b
        out POST, al
        dec r12d
        jnz .round
        mov [rel turns], r13
        print token
        finish 0

; TURNS turns, and up to 4,095 more by RAX
sway:   and eax, 0xfff
        lea ecx, [rax + TURNS]
        add r13, rcx
.turn:  lea rbx, [rbx + rcx + 1]
        rol rbx, 7
        dec ecx
        jnz .turn
        lea rdx, [rel sums]
        mov [rdx + 8 * r12], rbx
        ret
token:  db "sways: OK", 10, 0
        library
        align 8
turns:  dq 0
sums:   times ROUNDS + 1 dq 0
