from gridcore.cli import main

main()
