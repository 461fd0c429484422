; Computing with no exit at all, as kernels do it: interrupts are off and on again by PUSHF, CLI and POPF, and the handler of
; the timer works on after its end of interrupt. TF must never be seen in RFLAGS.
%include "common.inc"
LAST    equ 0x700000
TF      equ 0x100
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 59659         ; 20 Hz
        xor r15d, r15d
        xor r14d, r14d
        xor ebx, ebx
        sti
.spin:  pushfq
        cli
        mov rax, [rsp]
        or r14, rax
        inc rbx
        imul rdx, rbx, 0x5851f42d
        mov [LAST], rdx         ; not in a page of code: emulators would translate it anew
        popfq
        pushfq
        pushfq
        pop rax
        or r14, rax
        pop rax
        or r14, rax
        cmp r15d, 6
        jb .spin
        cli
        test r14d, TF
        jnz .seen
        print token
        finish 0
.seen:  print wrong
        finish 1
timer:  push rax
        push rdx
        push rsi
        inc r15d
        print tick
        end_of_interrupt
        mov esi, 100
.work:  pushfq
        pop rax
        or r14, rax
        imul rdx, rax, 0x5851f42d
        dec esi
        jnz .work
        or r14, [rsp + 40]      ; RFLAGS of what was interrupted
        pop rsi
        pop rdx
        pop rax
        iretq
token:  db "masked: OK", 10, 0
wrong:  db "masked: TF", 10, 0
tick:   db "tick", 10, 0
        library
        interrupt_table
