; Where the last x87 instruction and its operand were, which FNSTENV tells, across exits: a processor whose FXSAVE or FXRSTOR leaves
; them out shows those of the host. What differs first is printed.
%include "common.inc"
ROUNDS  equ 500
POINTER equ 12                  ; in the environment: FIP, and at 20 FDP (SDM 1 8.1.10)
OPERAND equ 20
        allow_x87
        enter_ring3 user
user:   fninit
        fld qword [rel value]
        fnstenv [rel first]
        mov r12d, ROUNDS
.round: mov al, r12b
        out POST, al
        fnstenv [rel now]
        mov ebx, [rel now + POINTER]
        cmp ebx, [rel first + POINTER]
        jne .bad
        mov ebx, [rel now + OPERAND]
        cmp ebx, [rel first + OPERAND]
        jne .bad
        dec r12d
        jnz .round
        print token
        finish 0
.bad:   print wrong
        call print_hex
        finish 1
token:  db "fpenv: OK", 10, 0
wrong:  db "fpenv: ", 0
        library
        align 16
value:  dq 1.5
first:  times 28 db 0
        align 16
now:    times 28 db 0
