; RDRAND and RDSEED, though CPUID hides them: common in old libraries. A CPU that has no way to forbid them executes them, and
; what they give goes to memory and registers; elsewhere they are invalid opcodes. All sizes, with and without prefixes.
%include "common.inc"
ROUNDS  equ 6
        gate 6, undefined
        load_idt
        lea rdi, [rel results]
        mov r12d, ROUNDS
        xor r13d, r13d          ; how many were executed
        xor r14d, r14d          ; and how many were invalid

%macro try 2                    ; INSTRUCTION, REGISTER
        lea r8, [rel %%after]
        %1 %2
        inc r13d
        jc %%after              ; there was a number
        dec r13d
        jmp %%done
%%after:
        mov [rdi], %2
%%done: add rdi, 8
        mov al, r12b
        out POST, al
%endmacro

.round: try rdrand, eax
        try rdrand, rbx
        try rdrand, r9
        try rdrand, cx
        try rdrand, r10w
        try rdseed, edx
        try rdseed, r15
        dec r12d
        jnz .round
        test r14d, r14d
        jz .all
        test r13d, r13d
        jz .done                ; all are invalid here
        finish 2
.all:   lea rsi, [rel results]  ; 64 random bits: none is zero, none like the one of the round before
        mov rax, [rsi + 8]
        cmp rax, [rsi + 8 + 7 * 8]
        je .bad
        test rax, rax
        jz .bad
.done:  print token
        finish 0
.bad:   finish 1
undefined:
        inc r14d
        mov [rsp], r8
        iretq
token:  db "random: OK", 10, 0
        library
        interrupt_table
        align 8
results:
        times 7 * ROUNDS dq 0
