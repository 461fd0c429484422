; The clock: its date at the start, a date set over the end of a year, and its three interrupts by IRQ 8.
%include "common.inc"
INDEX   equ 0x70
DATA    equ 0x71
B_24H   equ 0x02
B_UPDATE equ 0x10
B_ALARM equ 0x20
B_PERIODIC equ 0x40
B_SET   equ 0x80

%macro set_register 2
        mov al, %1
        out INDEX, al
        mov al, %2
        out DATA, al
%endmacro

%macro expect 3                 ; register, value, or end with status
        mov al, %1
        out INDEX, al
        in al, DATA
        cmp al, %2
        je %%good
        finish %3
%%good:
%endmacro

%macro wait_for 1               ; so many interrupts
        xor r15d, r15d          ; counted by the handler
%%more: sti
        hlt
        cli
        cmp r15d, %1
        jb %%more
%endmacro

        gate 0x28, clock
        load_idt
        start_pic
        mov al, 0xfb            ; IRQ 2 and 8 alone
        out 0x21, al
        mov al, 0xfe
        out 0xa1, al
        expect 0x0d, 0x80, 1    ; time and memory are valid
        expect 0x32, 0x20, 2    ; 2023-11-14 22:13, a Tuesday
        expect 0x09, 0x23, 3
        expect 0x08, 0x11, 4
        expect 0x07, 0x14, 5
        expect 0x06, 0x03, 6
        expect 0x04, 0x22, 7
        expect 0x02, 0x13, 8

        set_register 0x0b, B_SET | B_24H
        set_register 0x00, 0x58 ; 2031-12-31 23:59:58
        set_register 0x02, 0x59
        set_register 0x04, 0x23
        set_register 0x07, 0x31
        set_register 0x08, 0x12
        set_register 0x09, 0x31
        set_register 0x0b, B_24H | B_UPDATE
        wait_for 3
        test r14b, B_UPDATE
        jnz .updated
        finish 9
.updated:
        set_register 0x0b, B_24H
        expect 0x00, 0x01, 10   ; 2032-01-01 00:00:01
        expect 0x02, 0x00, 11
        expect 0x04, 0x00, 12
        expect 0x07, 0x01, 13
        expect 0x08, 0x01, 14
        expect 0x09, 0x32, 15

        set_register 0x01, 0x05 ; seconds, and any minute and hour
        set_register 0x03, 0xff
        set_register 0x05, 0xc0
        set_register 0x0b, B_24H | B_ALARM
        wait_for 1
        test r14b, B_ALARM
        jnz .alarmed
        finish 16
.alarmed:
        expect 0x00, 0x05, 17

        set_register 0x0a, 0x26 ; 1024 Hz
        set_register 0x0b, B_24H | B_PERIODIC
        wait_for 50
        set_register 0x0b, B_24H
        test r14b, B_PERIODIC
        jnz .ticked
        finish 18
.ticked:
        expect 0x00, 0x05, 19   ; 49 ms
        print token
        finish 0

clock:  push rax
        inc r15d
        mov al, 0x0c            ; reading register C ends the request
        out INDEX, al
        in al, DATA
        mov r14b, al
        mov al, 0x20
        out 0xa0, al
        end_of_interrupt
        pop rax
        iretq
token:  db "rtc: OK", 10, 0
        library
        interrupt_table
