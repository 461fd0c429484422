; An interrupt that is due at an STI comes after the next instruction (SDM 3A 6.8.3), also if KVM has to do something for that
; instruction: here it is the first write to a page.
%include "common.inc"
ROUNDS  equ 32
PAGES   equ 0x700000
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 1193          ; 1 kHz
        mov ebx, PAGES
        xor r13d, r13d          ; interrupts before the write
.due:   mov al, 0x0a            ; the 8259's requests
        out 0x20, al
        in al, 0x20
        test al, 1
        jz .due
        sti
        mov dword [rbx], 1
        cli
        add ebx, 4096
        cmp ebx, PAGES + ROUNDS * 4096
        jb .due
        test r13d, r13d
        jnz .early
        print token
        finish 0
.early: print early
        finish 1
timer:  push rax
        cmp dword [rbx], 1
        je .after
        inc r13d
.after: end_of_interrupt
        pop rax
        iretq
token:  db "shadow: OK", 10, 0
early:  db "shadow: an interrupt came before the instruction after STI", 10, 0
        library
        interrupt_table
