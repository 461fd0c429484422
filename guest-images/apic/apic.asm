; Local APIC and IO-APIC: timer out of HLT, an interrupt to itself, the task priority by both its registers, the 8254 through
; the IO-APIC, the PM timer against the 8254. The number of the check that failed is the status.
%include "common.inc"
LAPIC   equ 0xfee00000
IOAPIC  equ 0xfec00000
TPR     equ 0x80
EOI     equ 0xb0
SVR     equ 0xf0
ICR     equ 0x300
LVTT    equ 0x320
LINT0   equ 0x350
INITIAL equ 0x380
CURRENT equ 0x390
DIVIDE  equ 0x3e0
PMTIMER equ 0x608
TICKS   equ 20

%macro lapic 2                  ; register, value
        mov dword [rbp + %1], %2
%endmacro

%macro ioapic 2                 ; register, value
        mov dword [r13], %1
        mov dword [r13 + 0x10], %2
%endmacro

        mov ebp, LAPIC
        mov r13d, IOAPIC
        gate 0x2f, counted
        gate 0x23, counted
        load_idt
        mov al, 0xff            ; the 8259 is out of it
        out 0x21, al
        lapic LINT0, 0x10000
        lapic SVR, 0x1ff
        lapic DIVIDE, 0xb       ; by 1

        xor r15d, r15d          ; counted by the handler
        lapic LVTT, 0x2f
        lapic INITIAL, 500000   ; one-shot: 0.5 ms
        sti
        hlt
        cli
        cmp r15d, 1
        check 1, e
        cmp dword [rbp + CURRENT], 0
        check 2, e

        lapic LVTT, 0x2002f     ; periodic
        lapic INITIAL, 500000
.sleep: sti
        hlt
        cli
        cmp r15d, 1 + TICKS
        jb .sleep
        lapic INITIAL, 0

        xor r15d, r15d
        lapic ICR, 0x4002f      ; to itself, while interrupts are off
        mov al, 1
        out POST, al
        cmp r15d, 0
        check 3, e
        sti
        out POST, al            ; an exit with interrupts on: windows are not seen on each host
        cli
        cmp r15d, 1
        check 4, e

        lapic TPR, 0x20         ; class 2 has to wait
        lapic ICR, 0x4002f
        sti
        mov al, 2
        out POST, al
        cli
        cmp r15d, 1
        check 5, e
        mov rax, cr8
        cmp eax, 2
        check 6, e
        xor eax, eax            ; let it in by the other register
        sti
        mov cr8, rax
        out POST, al
        cli
        cmp r15d, 2
        check 7, e
        mov eax, 3
        mov cr8, rax
        mov al, 3
        out POST, al
        cmp dword [rbp + TPR], 0x30
        check 8, e
        mov eax, 4              ; raised, which is no exit, right before an access to another register
        mov cr8, rax
        lapic EOI, 0            ; none is in service
        mov rax, cr8
        cmp eax, 4
        check 9, e
        mov eax, 5
        mov cr8, rax
        cmp dword [rbp + TPR], 0x50
        check 10, e
        xor eax, eax
        mov cr8, rax

        xor r15d, r15d
        ioapic 0x15, 0          ; pin 2, to this CPU
        ioapic 0x14, 0x23       ; edge, vector 0x23
        start_pit 11932         ; 100 Hz
        mov dx, PMTIMER
        in eax, dx
        mov r12d, eax
.wait:  sti
        hlt
        cli
        cmp r15d, 10
        jb .wait
        mov dx, PMTIMER
        in eax, dx
        sub eax, r12d
        cmp eax, 322000         ; a tenth of a second are 357,954, the first period is shorter
        check 11, ae
        cmp eax, 365000
        check 12, be
        print token
        finish 0
failed: print wrong
        mov al, r14b
        out DEBUGEXIT, al
        jmp $

counted:
        inc r15d
        lapic EOI, 0
        iretq
token:  db "apic: OK", 10, 0
wrong:  db "apic: wrong", 10, 0
        library
        interrupt_table
