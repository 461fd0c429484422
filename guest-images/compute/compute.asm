; Computing without any exit, in rounds: integers, SSE, AVX2 where it is, REP instructions, page-table changes, system calls,
; self-modifying code. Ends by a sum that depends on all of it. The number of rounds lies behind the first jump.
%include "common.inc"
BUFFER  equ 0x700000
        jmp short start
        align 8
        db "DWCR"
rounds: dd 6
start:  allow_sse
        mov eax, 1
        cpuid
        not ecx
        test ecx, 1 << 26 | 1 << 28     ; XSAVE, AVX
        jnz .no_avx
        mov rax, cr4
        or eax, 1 << 18         ; OSXSAVE
        mov cr4, rax
        xor ecx, ecx
        xor edx, edx
        mov eax, 7
        xsetbv
        mov eax, 7
        cpuid
        shr ebx, 5
        and bl, 1
        mov [rel avx2], bl
.no_avx:
        allow_syscall system_call
        map_tables
        mov r12d, [rel rounds]
        mov r13, 0x123456789abcdef
.round:
        mov ecx, 1500           ; integers
.work:  imul r13, r13, 0x5851f42d
        add r13, rcx
        rol r13, 7
        dec ecx
        jnz .work

        movq xmm0, r13          ; SSE
        mov ecx, 100
.sse:   movdqa xmm1, xmm0
        paddq xmm0, xmm1
        pxor xmm0, [rel mask]
        psrlq xmm1, 3
        paddd xmm0, xmm1
        dec ecx
        jnz .sse
        movq rax, xmm0
        xor r13, rax

        cmp byte [rel avx2], 0
        je .rep
        vmovq xmm2, r13         ; both halves do the same
        vinserti128 ymm2, ymm2, xmm2, 1
        mov ecx, 100
.avx:   vpsrlq ymm3, ymm2, 3
        vpaddq ymm2, ymm2, ymm3
        vpslld ymm4, ymm3, 1
        vpxor ymm2, ymm2, ymm4
        dec ecx
        jnz .avx
        vextracti128 xmm3, ymm2, 1
        vpxor xmm3, xmm3, xmm2
        vmovq rax, xmm3
        add r13, rax            ; 0

.rep:   mov rdi, BUFFER         ; REP
        mov rax, r13
        mov ecx, 300
        rep stosq
        mov rsi, BUFFER + 3
        mov rdi, BUFFER + 0x2000
        mov ecx, 777
        rep movsb
        mov rdi, BUFFER
        mov al, 0x5a
        mov ecx, 200
        repne scasb
        add r13, rcx

        mov r14d, 8             ; page tables
.remap: mov eax, r13d
        add eax, r14d
        and eax, 3
        shl eax, 12
        add eax, FRAMES + 7
        mov [PT], rax
        mov rsi, LINEAR
        invlpg [rsi]
        add [rsi], r13
        xor r13, [rsi]
        dec r14d
        jnz .remap

        mov r14d, 8             ; system calls
.call:  syscall
        dec r14d
        jnz .call

        mov [rel .patched + 2], r13d     ; self-modifying code
        jmp .patched
        align 16
.patched:
        mov r15d, 0             ; 41 bf imm32
        add r13, r15
        dec r12d
        jnz .round
        mov rbx, r13
        print token
        call print_hex
        mov al, 0
        out DEBUGEXIT, al
        jmp $
system_call:
        add r13, rcx
        rol r13, 3
        push r11
        popfq
        jmp rcx
token:  db "compute: OK ", 0
        align 16
avx2:   db 0
        align 16
mask:   dq 0x0f1e2d3c4b5a6978, 0x8796a5b4c3d2e1f0
        library
