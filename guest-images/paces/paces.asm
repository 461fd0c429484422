; After each tick it computes in registers, for much longer than single steps lead, and then waits for the next one in a loop without an
; exit that changes no register, as kernels do that measure how fast they count.
%include "common.inc"
TICKS   equ 6
TURNS   equ 100000
        gate 0x20, timer
        load_idt
        start_pic
        start_pit 59659         ; 20 Hz
        sti
        xor ebx, ebx
        mov r8, 0x123456789abcdef
.tick:  inc ebx
.poll:  pause
        cmp [rel ticks], ebx
        jb .poll
        mov ecx, TURNS
.mix:   imul r8, r8, 0x5851f42d
        add r8, rcx
        rol r8, 7
        dec ecx
        jnz .mix
        cmp ebx, TICKS
        jb .tick
        cli
        print token
        mov rbx, r8
        call print_hex
        finish 0
timer:  push rax
        inc dword [rel ticks]
        end_of_interrupt
        pop rax
        iretq
token:  db "paces: OK ", 0
        align 8
ticks   dd 0
        library
        interrupt_table
