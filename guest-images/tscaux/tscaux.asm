; TSC_AUX written at each return to ring 3, as kernels do that do not look whether there is RDTSCP (Genode's), and read back.
%include "common.inc"
MSR_TSC_AUX equ 0xc0000103
ROUNDS  equ 100
        load_tss
        gate 13, refused
        gate 6, kernel
        load_idt
        xor r12d, r12d          ; round
        xor ebx, ebx            ; sum
        enter_ring3 user
user:   ud2                     ; kvm_pvm has no INT n, and SYSCALL stays in ring 3 there
kernel: inc r12d
        mov ecx, MSR_TSC_AUX
        rdmsr
        lea r13d, [r12 - 1]
        cmp eax, r13d
        jne .bad
        test edx, edx
        jnz .bad
        add rbx, rax
        cmp r12d, ROUNDS
        jae .done
        mov eax, r12d
        xor edx, edx
        wrmsr
        iretq                   ; to the UD2
.done:  print token
        call print_hex
        finish 0
.bad:   finish 1
refused:
        finish 2
token:  db "tscaux: OK ", 0
        library
        interrupt_table
        task_state
