; Waits for ticks in a loop that counts in a register, so that it seems to compute. A tick's handler goes on for more instructions than an
; element that was cut is stepped: where each cut makes the next tick due, all that is done is to handle ticks.
%include "common.inc"
ROUNDS  equ 4
WORK    equ 700
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 4773          ; 250 Hz
        sti
        mov ebx, ROUNDS
.round: mov eax, [rel ticks]
        add eax, 2
.wait:  inc rcx
        cmp [rel ticks], eax
        jb .wait
        dec ebx
        jnz .round
        cli
        print token
        finish 0
timer:  push rax
        inc dword [rel ticks]
        end_of_interrupt
        mov eax, WORK
.work:  dec eax
        jnz .work
        pop rax
        iretq
token:  db "overdue: OK", 10, 0
        align 8
ticks   dd 0
        library
        interrupt_table
