; SSE's control register at its initial value, all SSE registers zero, and the host's own value behind each exit: a processor that
; leaves MXCSR alone when it restores an initial state shows the host's.
%include "common.inc"
ROUNDS  equ 2000
INITIAL equ 0x1f80
        allow_sse
        mov r12d, ROUNDS
.round: stmxcsr [rel value]
        cmp dword [rel value], INITIAL
        check 1, e
        mov al, r12b
        out POST, al
        dec r12d
        jnz .round
        print token
        finish 0
failed: print wrong
        mov ebx, [rel value]
        call print_hex
        finish 1
token:  db "mxcsr: OK", 10, 0
wrong:  db "mxcsr: ", 0
        align 8
value   dq 0
        library
