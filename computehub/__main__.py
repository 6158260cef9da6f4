from computehub.cli import main

main()
