; NMIs that the CPU sends to itself by its local APIC, with interrupts off; and one while one is handled, which waits.
%include "common.inc"
LAPIC   equ 0xfee00000
SVR     equ 0xf0
ICR     equ 0x300
NMI     equ 0x40400             ; shorthand self
TURNS   equ 20
        mov ebp, LAPIC
        gate 2, handler
        load_idt
        mov dword [rbp + SVR], 0x1ff
        xor r13d, r13d          ; whether the handler sends one
        xor r15d, r15d          ; counted by the handler
        mov r12d, TURNS
.turn:  mov dword [rbp + ICR], NMI
        mov al, r15b
        out POST, al
        dec r12d
        jnz .turn
        mov eax, r15d
        cmp eax, TURNS
        jne failed
        mov r13d, 1             ; now another from within
        mov dword [rbp + ICR], NMI
        mov al, r15b
        out POST, al
        cmp r15d, TURNS + 2
        jne failed
        print token
        finish 0
failed: print wrong
        finish 1

handler:
        inc r15d
        mov eax, r15d
        test r13d, r13d
        jz .done
        xor r13d, r13d
        mov dword [rbp + ICR], NMI
        mov r14d, r15d
        out POST, al            ; blocked until IRET
        cmp r14d, r15d
        jne failed
.done:  iretq
token:  db "nmi: OK", 10, 0
wrong:  db "nmi: wrong", 10, 0
        library
        interrupt_table
