; Counts in memory, without an exit and for longer than a timer's interrupt may have to wait: its registers are those of a loop that waits.
%include "common.inc"
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 11932         ; 100 Hz
        jmp short .start
        align 8
        db "DWCR"
.turns: dd 300000
.start: mov eax, [rel .turns]
        mov [rel left], eax
        sti
.count: inc qword [rel counted]
        dec dword [rel left]
        jnz .count
        cli
        mov eax, [rel .turns]
        cmp [rel counted], rax
        jne .wrong
        print token
        finish 0
.wrong: finish 1
timer:  push rax
        end_of_interrupt
        pop rax
        iretq
token:  db "counts: OK", 10, 0
        align 4096
counted dq 0
left    dd 0
        library
        interrupt_table
