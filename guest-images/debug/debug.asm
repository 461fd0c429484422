; Debug exceptions of the guest's own, by ICEBP and by TF, reach its handler, also once a time site in ring 3 has been
; learned, whose trap is an ICEBP.
%include "common.inc"
        gate 1, debug
        load_idt
        load_tss
        allow_syscall kernel
        enter_ring3 user, 0
user:   mov r12d, 5
.round: rdtsc                   ; a time site
        mov [rel time], eax
        xor eax, eax
        xor edx, edx
        dec r12d
        jnz .round
        db 0xf1                 ; ICEBP: RIP is pushed behind it
        cmp dword [rel count], 1
        jne .lost
        pushfq
        or dword [rsp], 0x100
        popfq
        nop                     ; a trap behind it, and one behind what follows
        mov eax, [rel count]
        cmp eax, 2
        jne .lost
        syscall
.lost:  mov r12d, 1
        syscall
kernel: test r12d, r12d
        jnz .lost
        print token
        finish 0
.lost:  print lost
        finish 1
debug:  inc dword [rel count]
        cmp dword [rel count], 3
        jb .return
        and dword [rsp + 16], ~0x100    ; TF off
.return:
        iretq
token:  db "debug: OK", 10, 0
lost:   db "debug: an exception was lost, or came twice", 10, 0
        align 8
time:   dq 0
count:  dd 0
        library
        interrupt_table
        task_state
