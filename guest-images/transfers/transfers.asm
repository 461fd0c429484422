; String I/O, memory-mapped accesses from and to memory, and long ones: instructions that exit more than once, or whose
; end writes memory.
%include "common.inc"
DATA_AT equ 0x400000
DEVICE  equ 0xd0000000
PORT    equ 0x300
        allow_x87
        allow_sse
        cld
        xor ebx, ebx
        mov r12d, 20
.turn:  mov rdi, DATA_AT
        mov eax, r12d
        imul eax, eax, 0x01020305
        mov ecx, 64
        rep stosd
        mov dx, PORT
        mov rsi, DATA_AT
        mov ecx, 7
        rep outsb
        mov rdi, DATA_AT + 17
        mov ecx, 5
        rep insb
        mov rsi, DEVICE         ; from the device
        mov rdi, DATA_AT + 33
        movsd
        mov rsi, DATA_AT        ; to it
        mov rdi, DEVICE + 8
        movsd
        mov rsi, DEVICE + 16    ; from and to it
        mov rdi, DEVICE + 24
        movsd
        mov rax, DEVICE + 32
        add dword [rax], 5
        movups xmm0, [DATA_AT]  ; sixteen bytes are two accesses
        movups [rax + 32], xmm0
        movups xmm1, [rax + 64]
        movups [DATA_AT + 49], xmm1
        mov rsi, DATA_AT
        mov ecx, 64
.sum:   lodsd
        imul rbx, rbx, 31
        add rbx, rax
        dec ecx
        jnz .sum
        dec r12d
        jnz .turn
        print token
        call print_hex
        finish 0
token:  db "transfers: OK ", 0
        library
