from study.scores import scores


def test_the_last_checkpoint_of_the_main_measures_in_a_fixed_order():
    records = [
        {"metric": "psnr_db", "value": 20.123456789},
        {"metric": "fd_in_domain", "value": 3.0},
        {"metric": "something_else", "value": 1.0},
        {"metric": "fd_in_domain", "value": 2.0},
    ]
    assert scores(records) == "fd_in_domain: 2\npsnr_db: 20.1235\n"


def test_a_cell_that_measures_nothing_of_them_has_none():
    assert scores([{"metric": "accuracy", "value": 1.0}]) == ""
