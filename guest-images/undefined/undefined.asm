; Invalid opcodes in ring 3 are the guest's own: UD2, and SYSENTER, which is one on AMD's processors in 64-bit mode, and
; a general protection fault on Intel's as long as no one has said where it leads.
%include "common.inc"
ROUNDS  equ 20
        load_tss
        gate 6, undefined
        gate 13, protection
        load_idt
        xor r12d, r12d          ; faults
        xor r13d, r13d          ; round
        enter_ring3 user
user:   ud2
        sysenter
        mov al, r13b
        out POST, al
        inc r13d
        cmp r13d, ROUNDS
        jb user
        cmp r12d, 2 * ROUNDS
        jne .bad
        print token
        finish 0
.bad:   finish 1
protection:
        add rsp, 8              ; the error code
undefined:
        inc r12d
        add qword [rsp], 2      ; behind it
        iretq
token:  db "undefined: OK", 10, 0
        library
        interrupt_table
        task_state
