; Code that changes itself: the operand of an instruction, once an element, in the page that runs.
%include "common.inc"
ROUNDS  equ 250
        xor r12d, r12d
        xor r13d, r13d
.round: lea edx, [r12d * 3 + 1]
        mov [rel .patched + 3], edx
        jmp .flush              ; SDM 3A 9.1.3: a jump before the changed code
.flush:
.patched:
        add r13d, 0x11223344    ; 41 81 c5 imm32: the operand stands 3 bytes in
        mov al, r13b
        out POST, al
        inc r12d
        cmp r12d, ROUNDS
        jb .round
        print token
        mov rbx, r13
        call print_hex
        finish 0
token:  db "smc: OK ", 0
        library
