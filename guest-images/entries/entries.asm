; RDTSC behind everything that enters a kernel: page fault, general protection, invalid opcode, SYSCALL,
; timer interrupt. Each clears TF on the way in, so that single steps alone would miss it.
; The time stays in memory; the registers are the same in both replicas.
%include "common.inc"
ROUNDS  equ 8
NOWHERE equ 1 << 33             ; not mapped
%macro keep_time 1              ; where to
        rdtsc
        mov [rel %1], eax
        xor eax, eax
        xor edx, edx
%endmacro
        gate 6, invalid
        gate 13, protection
        gate 14, fault
        gate 0x20, timer
        load_idt
        allow_syscall system_call
        start_pic
        start_pit 1193
        mov r12d, ROUNDS
.round: mov rdi, NOWHERE
        mov al, [rdi]
        out POST, al
        mov rdi, 1 << 60        ; not canonical
        mov al, [rdi]
        out POST, al
        ud2
        out POST, al
        syscall
        out POST, al
        sti
        hlt
        cli
        out POST, al
        dec r12d
        jnz .round
        print token
        finish 0
fault:  keep_time time + 0
        jmp skip_two
protection:
        keep_time time + 8
skip_two:                       ; the instruction that failed; the error code goes too
        add rsp, 8
        add qword [rsp], 2
        iretq
invalid:
        keep_time time + 16
        add qword [rsp], 2
        iretq
system_call:
        keep_time time + 24
        push r11
        popfq
        jmp rcx
timer:  keep_time time + 32
        end_of_interrupt
        iretq
token:  db "entries: OK", 10, 0
        align 8
time:   times 5 dq 0
        library
        interrupt_table
