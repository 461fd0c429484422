; The power button (ACPI 4.8.2.2.1): pressed twice while the CPU halts, first by way of the 8259, then of the IO-APIC. Its interrupt
; is a level: it comes again until the status is cleared. Then the guest switches the machine off. It prints a line when the
; button may be pressed.
%include "common.inc"
LAPIC   equ 0xfee00000
IOAPIC  equ 0xfec00000
EOI     equ 0xb0
SVR     equ 0xf0
PM1_STATUS equ 0x600
PM1_ENABLE equ 0x602
PM1_CONTROL equ 0x604
PWRBTN  equ 1 << 8
SOFF    equ 5 << 10 | 1 << 13

%macro port_is 3                ; port, value, or end with status
        mov dx, %1
        in ax, dx
        cmp ax, %2
        je %%good
        finish %3
%%good:
%endmacro

%macro wait_for_press 0
        xor r15d, r15d          ; counted by the handlers
%%more: sti
        hlt
        cli
        cmp r15d, 2
        jb %%more
%endmacro

        mov ebp, LAPIC
        mov r13d, IOAPIC
        gate 0x29, by_8259
        gate 0x2a, by_apic
        load_idt
        start_pic
        mov al, 0xfb            ; IRQ 2 and 9 alone
        out 0x21, al
        mov al, 0xfd
        out 0xa1, al
        port_is PM1_STATUS, 0, 1
        mov dx, PM1_ENABLE
        mov ax, PWRBTN
        out dx, ax
        port_is PM1_ENABLE, PWRBTN, 2

        print ready
        wait_for_press
        port_is PM1_STATUS, 0, 3
        mov al, 0xff            ; the 8259 is out of it
        out 0x21, al
        mov dword [rbp + SVR], 0x1ff
        mov dword [r13], 0x23   ; pin 9: a level, vector 0x2a, to this CPU
        mov dword [r13 + 0x10], 0
        mov dword [r13], 0x22
        mov dword [r13 + 0x10], 0x802a

        print ready
        wait_for_press
        port_is PM1_STATUS, 0, 4
        print token
        mov dx, PM1_CONTROL
        mov ax, SOFF
        out dx, ax
        jmp $

; the first interrupt of a press leaves the status as it is, the second clears it
%macro count_press 0
        inc r15d
        cmp r15d, 1
        je %%leave
        mov dx, PM1_STATUS
        mov ax, PWRBTN
        out dx, ax
%%leave:
%endmacro

by_8259:
        count_press
        mov al, 0x20
        out 0xa0, al
        out 0x20, al
        iretq

by_apic:
        count_press
        mov dword [rbp + EOI], 0
        iretq

ready:  db "press", 10, 0
token:  db "button: OK", 10, 0
        library
        interrupt_table
