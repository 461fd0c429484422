; x87, SSE and, where there is XSAVE and AVX, YMM registers that live across elements.
%include "common.inc"
ROUNDS  equ 200
        allow_x87
        allow_sse
        xor r14d, r14d          ; AVX in use?
        mov eax, 1
        cpuid
        and ecx, 1 << 26 | 1 << 28
        cmp ecx, 1 << 26 | 1 << 28
        jne .start
        mov rax, cr4
        or eax, 1 << 18         ; OSXSAVE
        mov cr4, rax
        xor ecx, ecx
        xor edx, edx
        mov eax, 7              ; x87, SSE, AVX
        xsetbv
        mov r14d, 1
.start: enter_ring3 user
user:   fninit
        fldpi
        fld1
        movups xmm5, [rel ones]
        movups xmm6, [rel ones]
        test r14d, r14d
        jz begin
        vbroadcastss ymm7, [rel ones]
        vbroadcastss ymm8, [rel ones]
begin:  mov r12d, ROUNDS
.round: fadd st0, st1
        addps xmm6, xmm5
        test r14d, r14d
        jz .sse
        vaddps ymm8, ymm8, ymm7
.sse:   mov al, r12b
        out POST, al
        dec r12d
        jnz .round
        fstp qword [rel result]
        movups [rel result + 8], xmm6
        test r14d, r14d
        jz .show
        vmovups [rel wide], ymm8        ; all eight lanes counted as SSE did
        mov eax, [rel result + 8]
        lea rdi, [rel wide]
        mov ecx, 8
        repe scasd
        jne .bad
        vzeroupper
.show:  print token
        mov rbx, [rel result]
        call print_hex
        mov rbx, [rel result + 8]
        call print_hex
        finish 0
.bad:   print wrong
        finish 1
token:  db "fpu: OK", 10, 0
wrong:  db "fpu: wrong lanes", 10, 0
        library
        align 32
ones:   dd 1.0, 1.0, 1.0, 1.0
result: times 3 dq 0
        align 32
wide:   times 4 dq 0
