; Port I/O in ring 3 of 64-bit code by the permission bitmap of the task state, IOPL 0; a port that it forbids is #GP.
%include "common.inc"
ROUNDS  equ 40
MAP     equ 104
        load_tss
        mov word [GDT + TSS_SELECTOR], tss_end - tss - 1
        mov ax, TSS_SELECTOR
        mov byte [GDT + TSS_SELECTOR + 5], 0x89         ; available again
        ltr ax
        gate 13, protection
        load_idt
        xor r12d, r12d          ; faults
        xor r13d, r13d
        enter_ring3 user, 0
user:   mov al, r13b
        out POST, al
        out 0x81, al            ; forbidden
        inc r13d
        cmp r13d, ROUNDS
        jb user
        cmp r12d, ROUNDS
        jne .bad
        print token
        finish 0
.bad:   finish 1
protection:
        inc r12d
        add rsp, 8
        add qword [rsp], 2      ; behind it
        iretq
token:  db "bitmap: OK", 10, 0
        library
        interrupt_table
        align 16
tss:    dd 0
        dq 0x3e0000             ; RSP0
        times MAP - 12 - 2 db 0
        dw MAP
        times 0x10 db 0xff      ; ports below 0x80
        db 0xfe                 ; 0x80
        times 0xd db 0xff
        db 0xef                 ; 0xf4
        times 0x60 db 0xff      ; from 0xf8
        db 0, 0xff               ; 0x3f8
tss_end:
