; The keyboard controller as boot loaders ask it, waiting for each answer as they do: for ever. No keyboard is there.
%include "common.inc"
DATA    equ 0x60
COMMAND equ 0x64

%macro command 1
        call wait_input
        mov al, %1
        out COMMAND, al
%endmacro

%macro data 1
        call wait_input
        mov al, %1
        out DATA, al
%endmacro

%macro expect 3                 ; a byte and the status with it, or end with that
        call wait_output
        mov bl, al
        in al, DATA
        cmp al, %1
        jne %%bad
        and bl, 0x61            ; time-out, mouse, full
        cmp bl, %2
        je %%good
%%bad:  finish %3
%%good:
%endmacro

        gate 0x21, keyboard
        load_idt
        start_pic
        command 0xaa            ; self-test
        expect 0x55, 0x01, 1
        command 0xab            ; interfaces
        expect 0x00, 0x01, 2
        command 0xa9
        expect 0x00, 0x01, 3
        command 0x60            ; no interrupts
        data 0x44
        command 0x20
        expect 0x44, 0x01, 4
        command 0xd0            ; output port: A20 is open
        expect 0xcf, 0x01, 5
        command 0xd1
        data 0xdd
        command 0xd0
        expect 0xcd, 0x01, 6
        command 0xdf
        command 0xd0
        expect 0xcf, 0x01, 7
        in al, 0x92             ; and by the PS/2's port
        and al, 0xfd
        out 0x92, al
        command 0xd0
        expect 0xcd, 0x01, 8
        in al, 0x92
        or al, 2
        out 0x92, al
        command 0xd0
        expect 0xcf, 0x01, 9
        command 0xff            ; pulses nothing
        command 0xc0
        expect 0x80, 0x01, 10
        data 0xff               ; a reset for the keyboard that is not there
        expect 0xfe, 0x41, 11
        command 0xd4            ; and for the mouse
        data 0xff
        expect 0xfe, 0x61, 12
        command 0xd3
        data 0x5a
        expect 0x5a, 0x21, 13
        command 0xd2
        data 0x1c
        expect 0x1c, 0x01, 14
        in ax, DATA             ; a word: data, and port 0x61
        test al, al
        jz .word
        finish 15
.word:  mov al, 0xfd            ; IRQ 1
        out 0x21, al
        command 0x60
        data 0x45
        xor r15d, r15d
        command 0xd2
        data 0x2a
.sleep: sti
        hlt
        cli
        cmp r15d, 1
        jb .sleep
        cmp r14b, 0x2a
        je .interrupted
        finish 16
.interrupted:
        print token
        finish 0

wait_input:                     ; until the input buffer is empty
        in al, COMMAND
        test al, 2
        jnz wait_input
        ret
wait_output:
        in al, COMMAND
        test al, 1
        jz wait_output
        ret

keyboard:
        push rax
        inc r15d
        in al, DATA
        mov r14b, al
        end_of_interrupt
        pop rax
        iretq
token:  db "kbd: OK", 10, 0
        library
        interrupt_table
