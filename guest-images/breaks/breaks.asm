; For a debugger: code and data at known places. It counts in memory, by a function, and prints the sum as it is at the end.
%include "common.inc"
TURNS   equ 8
        jmp start
        times 0x100 - ($ - $$) nop
start:  gate 6, handler       ; 0x100100
        load_idt
        mov ebx, TURNS
        mov rsp, 0x200000
.turn:  mov edi, ebx
        call twice
        add [sum], eax
        dec ebx
        jnz .turn
        allow_sse
        movups xmm3, [rel sum]
        ud2                     ; leads to its handler, and back
        jmp done
        times 0x180 - ($ - $$) nop
twice:  lea eax, [rdi + rdi]    ; 0x100180
        out POST, al            ; an exit
        ret
        times 0x1c0 - ($ - $$) nop
handler:                        ; 0x1001c0
        mov r13d, [sum]
        add qword [rsp], 2
        iretq
        times 0x200 - ($ - $$) nop
sum:    dq 0, 0x1234            ; 0x100200
        times 0x240 - ($ - $$) nop
done:   print token             ; 0x100240
        mov ebx, r13d
        call print_hex
        finish 0
token:  db "breaks: OK ", 0
        library
        interrupt_table
