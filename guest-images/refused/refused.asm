; An MSR that no CPUID leaf announces: each read of it is a general protection fault, which the handler counts. The first exit is one.
%include "common.inc"
MSR_MPERF equ 0xe7
ROUNDS  equ 40
        gate 13, protection
        load_idt
        mov r12d, ROUNDS
        xor r13d, r13d          ; counted by the handler
.round: mov ecx, MSR_MPERF
        rdmsr
        mov al, r12b
        out POST, al
        dec r12d
        jnz .round
        cmp r13d, ROUNDS
        jne .bad
        print token
        finish 0
.bad:   finish 1
protection:
        inc r13d
        add rsp, 8              ; the error code
        add qword [rsp], 2      ; behind it
        iretq
token:  db "refused: OK", 10, 0
        library
        interrupt_table
