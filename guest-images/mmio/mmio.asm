; Physical addresses without memory: writes are dropped, reads give all ones.
%include "common.inc"
        mov r12d, 200
        xor ebx, ebx
        mov esi, 0xd0000000
.turn:  mov [rsi], r12d
        mov eax, [rsi + 4]
        cmp eax, -1
        jne failed
        movzx ecx, byte [rsi + 9]
        imul rbx, rbx, 33
        add rbx, rcx
        add rbx, rax
        dec r12d
        jnz .turn
        print token
        call print_hex
        finish 0
failed: print wrong
        finish 1
token:  db "mmio: OK ", 0
wrong:  db "mmio: FAIL", 10, 0
        library
