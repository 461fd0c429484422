; MSRs by which a host would tell of itself: time that never goes back, counters that stand still and cannot be started, and what
; is a fault as no CPUID leaf tells of it. The index of an MSR that is otherwise is printed.
%include "common.inc"
ROUNDS  equ 20
        load_tss
        gate 13, protection
        load_idt
        xor r14, r14            ; the last time seen
        mov r13d, ROUNDS
.time:  mov ecx, 0x10
        rdmsr
        shl rdx, 32
        or rax, rdx
        cmp rax, r14
        jb bad
        mov r14, rax
        out POST, al            ; the replicas agree on it
        dec r13d
        jnz .time

        lea r12, [rel counters]
.next:  mov ecx, [r12]
        add r12, 4
        test ecx, ecx
        jz .absent
        mov r13d, 2
.again: rdmsr
        or eax, edx
        jnz bad
        mov eax, 0x00410000     ; enabled, of ring 3
        wrmsr
        dec r13d
        jnz .again
        jmp .next

.absent:
        lea r12, [rel absent]
.fault: mov ecx, [r12]
        add r12, 4
        test ecx, ecx
        jz .done
        xor ebp, ebp
        rdmsr                   ; over by the handler
        cmp ebp, 1
        jne bad
        xor eax, eax
        wrmsr
        cmp ebp, 2
        jne bad
        jmp .fault
.done:  print token
        finish 0
bad:    mov ebx, ecx
        call print_hex
        finish 1
protection:
        inc ebp
        add rsp, 8
        add qword [rsp], 2      ; behind it
        iretq
counters:
        dd 0x34, 0xc1, 0x186, 0xc0010000, 0xc0010004, 0xc0010201, 0
absent: dd 0xe7, 0xe8, 0x12, 0x19c, 0x1b1, 0x3f8, 0x606, 0x64e, 0xc00000e7, 0xc001029a, 0x4b564d01, 0
token:  db "moving: OK", 10, 0
        library
        interrupt_table
        task_state
