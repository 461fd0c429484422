; Computing with interrupts on and no exit at all: only timer interrupts can end it. Each prints a line, 20 a second of
; guest time; how many there are lies behind the first jump.
%include "common.inc"
LAST    equ 0x700000
        jmp short start
        align 8
        db "DWCR"
ticks:  dd 6
start:
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 59659         ; 20 Hz
        xor r15d, r15d
        xor ebx, ebx
        sti
.spin:  inc rbx
        imul rdx, rbx, 0x5851f42d
        mov [LAST], rdx         ; not in a page of code: emulators would translate it anew
        cmp r15d, [rel ticks]
        jb .spin
        cli
        print token
        finish 0
timer:  push rax
        push rdx
        push rsi
        inc r15d
        print tick
        end_of_interrupt
        pop rsi
        pop rdx
        pop rax
        iretq
token:  db "spin: OK", 10, 0
tick:   db "tick", 10, 0
        library
        interrupt_table
