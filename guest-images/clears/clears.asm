; A kernel that clears its memory by a repeated string instruction, byte by byte, before it first reads the time: that is a quarter of a million
; single steps. The second time it faults on the way, at a page that its handler maps.
%include "common.inc"
PLACE   equ 0x700000
BYTES   equ 1 << 18
        gate 14, fault
        load_idt
        map_tables
        mov rdi, PLACE
        mov ecx, BYTES
        xor eax, eax
        rep stosb
        rdtsc
        mov [rel seen], eax
        mov al, 1
        out POST, al
        mov qword [PT], FRAMES + 7
        mov rdi, LINEAR
        mov ecx, 0x2000         ; the second page is not there
        mov al, 0x5a
        rep stosb
        rdtsc
        mov [rel seen + 4], eax
        cmp byte [FRAMES + 0x1fff], 0x5a
        jne .bad
        cmp byte [PLACE + BYTES - 1], 0
        jne .bad
        print token
        finish 0
.bad:   finish 1
fault:  add rsp, 8              ; the error code
        mov qword [PT + 8], FRAMES + 0x1000 + 7
        iretq
token:  db "clears: OK", 10, 0
        library
        interrupt_table
        align 8
seen:   dq 0
