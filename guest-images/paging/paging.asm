; Page tables that change: a linear page is mapped to one of four frames in turn, written and read back.
; A stale translation, as a rollback without a TLB flush leaves it, gives a wrong sum.
%include "common.inc"
ROUNDS  equ 300
        map_tables
        xor r12, r12            ; round
        xor r13, r13            ; sum of what was read
.round: mov rsi, LINEAR
        test r12, r12
        jz .change
        add r13, [rsi]          ; by the mapping of the round before: a rollback must bring it back
.change:
        mov rax, r12            ; next frame
        and eax, 3
        shl rax, 12
        add rax, FRAMES
        mov rdx, rax
        or rdx, 7
        mov [PT], rdx
        test r12b, 4            ; flush in both ways
        jz .all
        invlpg [rsi]
        jmp .use
.all:   mov rcx, cr3
        mov cr3, rcx
.use:   add r13, [rsi]          ; what this frame got four rounds ago
        lea rcx, [r12 * 8 + 3]
        mov [rsi], rcx
        cmp rcx, [rax]          ; by the identity map
        jne .bad
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
token:  db "paging: OK ", 0
stale:  db "paging: stale translation", 10, 0
        library
