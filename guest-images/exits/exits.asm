; Accesses that exit, of a chosen kind, one a turn: bench exits. The parameters lie behind the first jump, for whoever loads the image
; to change. Turns left are in r12. By default some of each kind.
%include "common.inc"
LAPIC_VERSION equ 0xfee00030
PCI_ADDRESS equ 0xcf8
PCI_DATA equ 0xcfc
I8042_STATUS equ 0x64
KINDS   equ 4
        jmp short start
        align 8
        db "DWCX"
kind:   dd 0                    ; from 1; 0: each of them
turns:  dd 100
start:  mov edx, PCI_ADDRESS    ; the host bridge's first register
        mov eax, 0x80000000
        out dx, eax
        mov r13d, [rel kind]
        mov r14d, r13d
        test r13d, r13d
        jnz .chosen
        mov r13d, 1
        mov r14d, KINDS
.chosen:
.next:  mov r12d, [rel turns]
        cmp r13d, 1
        je .write
        cmp r13d, 2
        je .pci
        cmp r13d, 3
        je .keyboard
        mov rsi, LAPIC_VERSION
.memory:
        mov eax, [rsi]
        dec r12d
        jnz .memory
        cmp al, 0x10            ; of an integrated APIC: 0x10 and more (SDM 3A 11.4.8)
        jb .bad
        jmp .done
.write: mov al, r12b
.write_again:
        out POST, al
        dec r12d
        jnz .write_again
        jmp .done
.pci:   mov edx, PCI_DATA
.pci_again:
        in eax, dx
        dec r12d
        jnz .pci_again
        cmp eax, 0x29c08086
        jne .bad
        jmp .done
.keyboard:
        in al, I8042_STATUS
        dec r12d
        jnz .keyboard
        cmp al, 0xff
        je .bad
.done:  inc r13d
        cmp r13d, r14d
        jbe .next
        print token
        finish 0
.bad:   finish 1
token:  db "exits: OK", 10, 0
        library
