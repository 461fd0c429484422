; RDTSC in 32-bit code of ring 3 under a 64-bit kernel: what is a trap in one mode may be none in the other.
%include "common.inc"
ROUNDS  equ 20
CODE32  equ 0x23                ; in a free place of the GDT (boot/entry.py)
        mov rax, 0x00cffb000000ffff
        mov [GDT + CODE32 - 3], rax
        push qword 0x2b         ; SS
        push qword 0x3f0000     ; RSP
        push qword 0x3002       ; IOPL 3
        push qword CODE32
        lea rax, [rel user]
        push rax
        iretq

        bits 32
user:   mov ecx, ROUNDS
        xor esi, esi            ; the last time seen
        xor edi, edi
.round: rdtsc
        mov [time], eax
        mov [time + 4], edx
        cmp edx, esi
        jb .bad
        ja .later
        cmp eax, edi
        jb .bad
.later: mov esi, edx
        mov edi, eax
        xor eax, eax
        xor edx, edx
        dec ecx
        jnz .round
        mov esi, token
        mov dx, COM1
.next:  lodsb
        test al, al
        jz .done
        out dx, al
        jmp .next
.done:  finish 0
.bad:   finish 1
token:  db "compat: OK", 10, 0
        align 8
time:   dq 0
