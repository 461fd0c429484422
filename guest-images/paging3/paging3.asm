; Page tables that ring 3 itself fills: each round maps a page that was not present, which needs no TLB flush, to a frame
; chosen by the sum so far, and uses it. A KVM that shadows page tables runs ring 3 by its shadow, and that does not see
; what a rollback writes through the mapping of guest RAM.
%include "common.inc"
ROUNDS  equ 300
        map_tables
        xor r12, r12            ; round
        xor r13, r13            ; sum of what was read
        enter_ring3 user
user:   mov rsi, LINEAR
.round: mov rax, r13            ; the frame
        shr rax, 4
        and eax, 3
        shl eax, 12
        add eax, FRAMES + 0x67
        mov [PT + r12 * 8], rax
        mov rcx, [rsi]
        add r13, rcx
        lea rcx, [rcx + r12 * 8 + 3]
        mov [rsi], rcx
        and rax, ~0xfff
        cmp rcx, [rax]          ; by the identity map
        jne .bad
        add rsi, 4096
        mov al, r12b
        out POST, al
        inc r12
        cmp r12, ROUNDS
        jb .round
        print token
        mov rbx, r13
        call print_hex
        finish 0
.bad:   print stale
        finish 1
token:  db "paging3: OK ", 0
stale:  db "paging3: stale translation", 10, 0
        library
