; Waits 30 s in HLT for a byte from the serial port, looked for at each timer interrupt, and says it, or that none came.
%include "common.inc"
TICKS   equ 546                 ; of 1193182 / 65535 Hz
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 65535
        xor r15d, r15d          ; counted by the handler
.sleep: sti
        hlt
        cli
        mov dx, COM1 + 5
        in al, dx
        test al, 1
        jnz .came
        cmp r15d, TICKS
        jb .sleep
        mov al, 0xff
        out 0x21, al
        print token
        finish 0
.came:  mov dx, COM1
        in al, dx
        mov [rel byte_in], al
        mov al, 0xff
        out 0x21, al
        print said
        finish 0
timer:  push rax
        inc r15d
        end_of_interrupt
        pop rax
        iretq
token:  db "waits: OK", 10, 0
said:   db "waits: "
byte_in db "?", 10, 0
        library
        interrupt_table
