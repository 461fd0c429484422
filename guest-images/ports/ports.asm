; A checksum goes out to port 0x80 at every turn: an element a turn, and a flipped bit shows.
%include "common.inc"
        mov rbx, 0x123456789abcdef
        mov ecx, 2000
.turn:  imul rbx, rbx, 0x5851f42d
        add rbx, rcx
        mov eax, ebx
        out POST, al
        dec ecx
        jnz .turn
        print token
        call print_hex
        finish 0
token:  db "ports: OK ", 0
        library
