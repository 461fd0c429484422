; Timer interrupts, first from HLT, then at open windows while port I/O goes on; masked windows between.
%include "common.inc"
TICKS   equ 40
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 1193          ; 1 kHz
        xor r15d, r15d          ; counted by the handler
.sleep: sti
        hlt
        cli
        cmp r15d, TICKS
        jb .sleep
        xor r12d, r12d
.busy:  cli                     ; a tick that comes due here waits for the window
        mov ecx, 2000
.masked:
        dec ecx
        jnz .masked
        mov al, r12b
        out POST, al
        sti
        inc r12d
        mov ecx, 2000
.open:  dec ecx
        jnz .open
        cmp r15d, 2 * TICKS
        jb .busy
        cli
        mov al, 0xff
        out 0x21, al
        print token
        finish 0
timer:  push rax
        inc r15d
        end_of_interrupt
        pop rax
        iretq
token:  db "interrupts: OK", 10, 0
        library
        interrupt_table
