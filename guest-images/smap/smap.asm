; RDTSC in ring 3, whose pages SMAP hides from ring 0 where the CPU has it. All memory is ring 3's: ring 0 is entered by
; SYSCALL, left by SYSRET, and touches no data. And IRET in ring 3, from a stack there; the GDT that it reads is ring 0's.
%include "common.inc"
ROUNDS  equ 20
SMAP    equ 21                  ; of CR4

%macro say 1                    ; a text, in the instructions
%strlen length %1
%assign i 1
        mov edx, COM1
%rep length
%substr letter %1 i
        mov al, letter
        out dx, al
%assign i i + 1
%endrep
        mov al, 10
        out dx, al
%endmacro

        map_tables
        mov qword [PT], GDT + 3
        sub rsp, 16
        sgdt [rsp]
        mov rax, LINEAR
        mov [rsp + 2], rax
        lgdt [rsp]
        add rsp, 16
        allow_syscall kernel
        mov eax, 7
        xor ecx, ecx
        cpuid
        bt ebx, 20
        jnc .enter
        mov rax, cr4
        bts eax, SMAP
        mov cr4, rax
.enter: lea rcx, [rel user]
        mov r11d, 2
        o64 sysret
user:   mov rax, rsp
        mov ecx, ss
        push rcx
        push rax
        pushfq
        mov ecx, cs
        push rcx
        lea rcx, [rel .same]
        push rcx
        iretq
.same:  mov r12d, ROUNDS
        xor r14, r14            ; the last time seen
.round: rdtsc
        mov [rel time], eax
        mov [rel time + 4], edx
        mov rax, [rel time]
        cmp rax, r14
        jb .bad
        mov r14, rax
        xor eax, eax
        xor edx, edx
        dec r12d
        jnz .round
        syscall
.bad:   mov r12d, 1
        syscall
kernel: test r12d, r12d
        jnz .bad
        say "smap: OK"
        finish 0
.bad:   say "smap: time ran backwards"
        finish 1
        align 8
time:   dq 0
