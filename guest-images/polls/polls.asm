; Waits for timer interrupts in loops without an exit that change no register: the handler counts in memory.
%include "common.inc"
TICKS   equ 6
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 59659         ; 20 Hz
        sti
        xor ebx, ebx
.tick:  inc ebx
.poll:  pause
        cmp [rel ticks], ebx
        jb .poll
        cmp ebx, TICKS
        jb .tick
        cli
        print token
        finish 0
timer:  push rax
        inc dword [rel ticks]
        end_of_interrupt
        pop rax
        iretq
token:  db "polls: OK", 10, 0
        align 8
ticks   dd 0
        library
        interrupt_table
