; Elements of ring-3 computing that write a chosen number of pages and end with an OUT: the bench.
; The parameters lie behind the first jump, for whoever loads the image to change.
%include "common.inc"
DIRTY_AT equ 0x400000
        jmp short start
        align 8
        db "DWCP"
iterations: dd 1000
pages:      dd 10
elements:   dd 100
start:  enter_ring3 user
user:   mov r12d, [rel elements]
        mov rbx, 0x123456789abcdef
.element:
        mov ecx, [rel iterations]
.work:  imul rbx, rbx, 0x5851f42d
        add rbx, rcx
        dec ecx
        jnz .work
        mov ecx, [rel pages]
        mov rdi, DIRTY_AT
        test ecx, ecx
        jz .end
.page:  add [rdi], rbx
        add rdi, 4096
        dec ecx
        jnz .page
.end:   mov al, bl
        out POST, al
        dec r12d
        jnz .element
        print token
        call print_hex
        mov al, 0
        out DEBUGEXIT, al
        jmp $
token:  db "ring3: OK ", 0
        library
